"""What tools/chaos is made of.

    tour.py       one run from beginning to end
    place.py      the server, its configuration and applications, in a directory of its own
    mix.py        what is asked: pure, from a seed
    client.py     one connection: sends, reads, believes nothing
    load.py       many of them, at a pace
    ledger.py     what clients saw, and what applications did
    faults.py     kinds of faults, what each may cost, and when they come: pure, from a seed
    injector.py   carries the plan out; acts.py and operations.py are the single faults
    killer.py     the end of a front end, and whose connections it takes along: a program of its own
    disks.py      file systems that can be filled
    slow.py       file systems that are slow
    logs.py       follows the logs through rotations
    causes.py     which line in the log may explain what
    judge.py      ledgers, logs and faults against each other
    leftovers.py  descriptors, processes and files before and after
    selftest.py   planted bugs

Standard library only; what starts a server is that of the tests (tests/serving.py).
"""
