# An HTTPS server that says what it was asked: python3 -c HTTPS PORT CERTIFICATE-AND-KEY
import json, socket, ssl, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = {"path": self.path, "host": self.headers.get("host"), "sni": self.connection.server_name,
                 "alpn": self.connection.selected_alpn_protocol()}
        body = json.dumps(asked).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128
    daemon_threads = True

    def finish_request(self, request, client_address):
        # The handshake is each connection's own, so that one that never ends holds up nobody.
        with context.wrap_socket(request, server_side=True) as stream:
            super().finish_request(stream, client_address)


def named(stream, name, _):
    stream.server_name = name


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2])
context.set_alpn_protocols(["http/1.1"])
context.sni_callback = named
server = Server(("::", int(sys.argv[1])), App)
print(json.dumps({"ready": True}), flush=True)
server.serve_forever()
