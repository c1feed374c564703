# SPDX-License-Identifier: 0BSD
"""The workers of on-connection.toml."""

import http.server

import prefork


class Handler(http.server.BaseHTTPRequestHandler):
    """Answer every request with the slot that serves it."""

    def do_GET(self):
        body = f"{prefork.slot}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve():
    """Serve the socket http, which other workers serve too."""
    (listener,) = prefork.sockets()["http"]
    server = http.server.HTTPServer(listener.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.server_name, server.server_port = listener.getsockname()
    server.serve_forever()
