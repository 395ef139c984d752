# A server that says on which connection a request came. python3 -c APP NAME PORT
# /SECONDS: answers after so long; /bad/NAME: fails, if it has that name; /peak: most requests at a time since the last /peak;
# another word: 404 and the end of the connection, so that nothing is left of who asks for a rule that is not there yet
import json, socket, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

name, port = sys.argv[1], int(sys.argv[2])
lock, connections, active, peak = threading.Lock(), 0, 0, 0


class App(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    protocol_version = "HTTP/1.1"

    def setup(self):
        global connections
        super().setup()
        with lock:
            connections += 1
            self.number = connections

    def do_GET(self):
        global active, peak
        first, _, rest = self.path.strip("/").partition("/")
        if first not in ("", "bad", "peak") and not first.replace(".", "").isdigit():
            return self.send_error(404)
        with lock:
            active += 1
            peak = max(peak, active)
        answer = {"who": name, "connection": f"{name}-{self.number}"}
        if first == "peak":
            with lock:
                answer["peak"], peak = peak, 0
        elif first not in ("", "bad"):
            time.sleep(float(first))
        with lock:
            active -= 1
        body = json.dumps(answer).encode()
        self.send_response(503 if first == "bad" and rest == name else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128
    daemon_threads = True


server = Server(("::", port), App)
print(json.dumps({"ready": True}), flush=True)
server.serve_forever()
