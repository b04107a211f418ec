"""`python -m train.small DATA OUT`: see `train.small.pictures`."""

from train.small.pictures import main

if __name__ == "__main__":
    main()
