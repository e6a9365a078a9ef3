"""What a node measures on its GPU: verify-install, bench and memory. Standard library, and torch where it is asked for.

Like the doctor beside it this runs in the Python of a node, from 3.9 on, which has nothing else of ours:

    PYTHONPATH=src python3 -m hopperforge.node.gpu bench seqlen=4096
"""
