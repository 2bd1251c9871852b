"""`python -m cloudctl`."""

from cloudctl.main import main

main()
