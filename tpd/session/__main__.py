"""`python -I -m tpd.session --control-fd N`; started by tpd."""

import sys

from tpd.session.main import main

sys.exit(main())
