"""What a group's processes can reach, tried from inside: see webserverctl(8), audit.

Runs as the group, confined as its manager is, in its interpreter: the standard library only, any Python from 3.9 on.
"""
