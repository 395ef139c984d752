# Clients for the tests of routes of connections.
# python3 -c CLIENT count HOST PORT TIMES [SERVER-NAME] | hold HOST PORT TIMES | wait HOST PORT 1 | say HOST PORT 1
import json, socket, ssl, sys, time

kind, host, port, times = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
server = sys.argv[5] if len(sys.argv) > 5 else None


def opened():
    stream = socket.create_connection((host, port), timeout=15)
    if server is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        stream = context.wrap_socket(stream, server_hostname=server)
    return stream, stream.makefile().readline().strip()


def say(**what):
    print(json.dumps(what), flush=True)


if kind == "count":
    # Whom so many connections lead to, one after the other; "" for those that lead nowhere.
    seen = []
    for _ in range(times):
        try:
            stream, name = opened()
            stream.close()
        except OSError:
            name = ""
        seen.append(name)
    say(seen=seen, counts={name: seen.count(name) for name in seen})

if kind == "hold":
    # So many connections at a time, until stdin ends.
    held = [opened() for _ in range(times)]
    say(held=[name for _, name in held])
    sys.stdin.read()

if kind == "wait":
    # A connection that says nothing, and how it ends.
    began = time.monotonic()
    stream, name = opened()
    stream.settimeout(60)
    try:
        end = "EOF" if stream.recv(1) == b"" else "a byte"
    except OSError as error:
        end = type(error).__name__
    say(name=name, end=end, after=time.monotonic() - began)

if kind == "say":
    # Bytes that are no TLS, and how the connection ends.
    stream = socket.create_connection((host, port), timeout=15)
    try:
        stream.sendall(b"hello, is this a server?\n")
        end = "EOF" if stream.recv(1) == b"" else "a byte"
    except OSError as error:
        end = type(error).__name__
    say(end=end)
