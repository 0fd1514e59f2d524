"""What the cut (kernel/cutting.py) computes of sorted rows: runs and their values, and pieces of chains."""
