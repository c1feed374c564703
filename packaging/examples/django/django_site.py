# SPDX-License-Identifier: 0BSD
"""The project of django.toml in one file: settings, views, URLs and server."""

import django.core.asgi
import django.http
import django.urls
import uvicorn

import prefork

ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = __name__


def index(request):
    """Answer every request with the slot that serves it."""
    return django.http.HttpResponse(f"{prefork.slot}\n", content_type="text/plain")


urlpatterns = [django.urls.path("", index)]
application = None


def load():
    """Load the project in the floor. Leave databases alone here: workers connect."""
    global application
    application = django.core.asgi.get_asgi_application()  # calls django.setup()


def serve():
    """Serve the socket http until SIGTERM, and finish the requests that have begun."""
    config = uvicorn.Config(application, lifespan="off", log_level="warning")
    uvicorn.Server(config).run(sockets=prefork.sockets()["http"])
