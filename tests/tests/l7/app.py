# A server for the tests of L7: who answered, and what was asked, as JSON. python3 -c APP NAME PORT
import json, socket, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

name, port = sys.argv[1], int(sys.argv[2])
failures = {}


class App(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    protocol_version = "HTTP/1.1"

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.headers.get("upgrade") == "websocket":
            return self.echo()
        kind, _, rest = self.path.split("?")[0].strip("/").partition("/")
        if kind == "slow":
            time.sleep(float(rest))
        if kind == "stream":
            return self.stream(int(rest))
        if kind == "bad" and rest == name:
            return self.reply(503, b"bad")
        if kind == "flaky":
            # So many failures before the first success, by the name of the sequence.
            key, _, times = rest.partition("/")
            failures[key] = failures.get(key, 0) + 1
            if failures[key] <= int(times):
                return self.reply(503, b"not yet")
        length = int(self.headers.get("content-length") or 0)
        sent = self.rfile.read(length).decode()
        headers = {key.lower(): value for key, value in self.headers.items()}
        asked = {"who": name, "method": self.command, "path": self.path, "headers": headers, "body": sent}
        self.reply(200, json.dumps(asked).encode())

    do_POST = do_PUT = do_GET

    def stream(self, size):
        self.send_response(200)
        self.send_header("content-length", str(size))
        self.end_headers()
        block = bytes(1 << 16)
        while size > 0:
            size -= self.wfile.write(block[: min(size, len(block))])

    def echo(self):
        self.send_response(101)
        self.send_header("connection", "upgrade")
        self.send_header("upgrade", "websocket")
        self.end_headers()
        self.wfile.flush()
        while data := self.connection.recv(4096):
            self.connection.sendall(data)
        self.close_connection = True

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128
    daemon_threads = True


server = Server(("::", port), App)
print(json.dumps({"ready": True}), flush=True)
server.serve_forever()
