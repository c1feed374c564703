# SPDX-License-Identifier: AGPL-3.0-or-later
import hashlib
import hmac
import http.server
import secrets
import select
import selectors
import socket
import socketserver
import ssl
import threading
import urllib.request
import uuid


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"path " + self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def main():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}/x") as answer:
            print(answer.status, answer.read())
        server.shutdown()
    context = ssl.create_default_context()
    print(context.check_hostname, context.verify_mode.name, len(context.get_ciphers()) > 5)
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(ours, theirs, server_hostname="example.org")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        print("hello of", len(theirs.read()) > 100)
    print(len({ssl.RAND_bytes(8), secrets.token_bytes(8), uuid.uuid4().bytes}), hashlib.sha256(b"x").hexdigest()[:8])
    print(hmac.new(b"k", b"x", "sha512").hexdigest()[:8], hashlib.scrypt(b"p", salt=b"s", n=2, r=1, p=1).hex()[:8])
    a, b = socket.socketpair()
    with selectors.DefaultSelector() as selector:
        selector.register(a, selectors.EVENT_READ)
        b.send(b"x")
        print(len(selector.select(10)))
    poll = select.epoll()
    poll.register(a, select.EPOLLIN)
    print([event for _, event in poll.poll(10)])
    print(socket.getdefaulttimeout(), socket.gethostbyname("127.0.0.1"))


if __name__ == "__main__":
    main()
