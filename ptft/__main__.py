"""``python -m ptft`` is the ``ptft`` command."""

from ptft.cli.main import main

if __name__ == "__main__":  # worker processes import this module under another name
    main()
