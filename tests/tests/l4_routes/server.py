# A server for the tests of routes of connections: python3 -c SERVER NAME PORT [CERTIFICATE-AND-KEY [CA]]
# It says its name, in TLS if it has a certificate, to clients of the CA alone if there is one, and reads to the end, which it answers.
import json, socket, ssl, sys, threading

name, port = sys.argv[1], int(sys.argv[2])
tls = None
if len(sys.argv) > 3:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[3])
if len(sys.argv) > 4:
    tls.load_verify_locations(sys.argv[4])
    tls.verify_mode = ssl.CERT_REQUIRED


def serve(connection):
    try:
        with tls.wrap_socket(connection, server_side=True) if tls else connection as stream:
            stream.sendall(name.encode() + b"\n")
            while stream.recv(4096):
                pass
            if tls:
                stream.unwrap()
    except OSError:
        pass


listener = socket.socket(socket.AF_INET6)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.bind(("::", port))
listener.listen(256)
print(json.dumps({"ready": True}), flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
