"""`python -m streamsal`."""

from .cli import main

raise SystemExit(main())
