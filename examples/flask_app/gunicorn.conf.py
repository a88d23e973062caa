"""Three workers of four threads, forked from a loaded application."""

import os

if os.environ.get("SHOP_POOL") != "queue":
    from poolproof.integrations.gunicorn import *  # noqa: F403

worker_class = "gthread"
workers = 3
threads = 4
preload_app = True
accesslog = None
loglevel = "warning"
graceful_timeout = 5
control_socket_disable = True
