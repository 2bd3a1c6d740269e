"""`python -m barcast.serving.model_server`."""

import sys

from barcast.serving.model_server import main

sys.exit(main())
