"""`python -m train.small DATA PACKAGES OUT [--licence free]`: pictures and words, see `train.small.pictures`."""

from train.small.pictures import main

if __name__ == "__main__":
    main()
