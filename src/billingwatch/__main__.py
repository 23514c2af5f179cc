"""`python -m billingwatch`."""

from billingwatch.cli import main

main()
