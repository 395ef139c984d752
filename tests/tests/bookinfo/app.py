# A stand-in for a service of bookinfo: who answered, and what those said whom it asked. python3 -c APP SERVICE VERSION
import http.client, json, socket, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

service, version = sys.argv[1], sys.argv[2]


class App(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        user = self.headers.get("end-user")
        answer = {"service": service, "version": version, "user": user}
        # As in the original: the page asks for details and reviews, and reviews since v2 for ratings.
        if self.path == "/productpage":
            answer |= {"details": ask("details", "/details/0", user), "reviews": ask("reviews", "/reviews/0", user)}
        elif self.path == "/reviews/0" and version != "v1":
            answer["ratings"] = ask("ratings", "/ratings/0", user)
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def ask(service, path, user):
    began = time.monotonic()
    connection = http.client.HTTPConnection(service, 9080, timeout=20)
    connection.request("GET", path, headers={"end-user": user} if user else {})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    answer = json.loads(text) if response.status == 200 else {"text": text}
    return answer | {"status": response.status, "seconds": time.monotonic() - began}


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128
    daemon_threads = True


server = Server(("::", 9080), App)
print("ready", flush=True)
server.serve_forever()
