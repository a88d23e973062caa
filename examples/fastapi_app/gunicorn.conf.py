"""Three workers with a loop each, forked from a loaded application."""

import os

if os.environ.get("SHOP_POOL") != "queue":
    from poolproof.integrations.gunicorn import *  # noqa: F403

worker_class = "asgi"
workers = 3
preload_app = True
# A customer who hangs up has the work for him cancelled at once; by default in 3 s.
asgi_disconnect_grace_period = 0
accesslog = None
loglevel = "warning"
graceful_timeout = 5
control_socket_disable = True
