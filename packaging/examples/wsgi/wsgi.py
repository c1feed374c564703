# SPDX-License-Identifier: 0BSD
"""The application of wsgi.toml, and gunicorn without its command line."""

import gunicorn.app.base
import gunicorn.workers.gthread  # by name it would be imported late, in each worker

import prefork


def application(environ, start_response):
    """Answer every request with the slot that serves it. Yours goes here."""
    body = f"{prefork.slot}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


class Server(gunicorn.app.base.BaseApplication):
    """One process of gunicorn's with threads. The slots are what there are more of."""

    def load_config(self):
        settings = {"workers": 1, "threads": 4, "graceful_timeout": 10, "control_socket_disable": True}
        for name, value in settings.items():
            if name in self.cfg.settings:  # old ones have no control socket
                self.cfg.set(name, value)

    def load(self):
        return prefork.count_wsgi(application)  # for recycle_requests


def serve():
    """Serve all sockets of this worker: gunicorn knows sd_listen_fds(3)."""
    Server().run()
