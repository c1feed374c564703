import select
import prefork

def serve():
    listener = prefork.sockets()["http"][0]
    listener.setblocking(False)
    prefork.ready()
    while True:
        prefork.watchdog()
        if select.select([listener], [], [], (prefork.watchdog_sec or 60) / 2)[0]:
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionError):
                continue
            with connection:
                answer(connection)

def answer(connection):
    connection.settimeout(5)
    connection.sendall(f"{prefork.slot} at your service\n".encode())
