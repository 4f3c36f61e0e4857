"""`python -m equilign`, which launchers of several processes can start."""

from equilign.cli.main import run

if __name__ == "__main__":
    run()
