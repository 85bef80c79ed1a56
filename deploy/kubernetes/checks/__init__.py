"""What `make check` holds against deploy/kubernetes; see check.py."""
