# Clients that do odd things, for the tests of L7. python3 -c CLIENT KIND HOST PORT PATH; the last line of output is JSON.
import base64, json, os, socket, struct, sys, time

kind, host, port, path = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]

if kind == "raw":
    # Each text (a JSON list of them) on a connection of its own, ended after it, and read to the end.
    answers = []
    for text in json.loads(path):
        with socket.create_connection((host, port), timeout=30) as stream:
            stream.sendall(text.encode().decode("unicode_escape").encode("latin1"))
            stream.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while data := stream.recv(65536):
                    answer += data
            except ConnectionResetError:
                pass
        answers.append(answer.decode("latin1"))
    print(json.dumps({"answers": answers}))
    sys.exit()

stream = socket.create_connection((host, port), timeout=30)


def say(text):
    stream.sendall(text.encode())


def until(mark):
    held = b""
    while mark not in held:
        data = stream.recv(65536)
        if not data:
            break
        held += data
    return held


def rest():
    held = b""
    try:
        while data := stream.recv(65536):
            held += data
    except ConnectionResetError:
        return held, "reset"
    return held, "end"


def exactly(size):
    held = b""
    while len(held) < size:
        data = stream.recv(size - len(held))
        if not data:
            raise EOFError(f"{len(held)} of {size} bytes came")
        held += data
    return held


def done(**what):
    print(json.dumps(what))


if kind in ("leave", "abort"):
    # Asks, waits a moment, and goes: with an end, or a reset.
    say(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
    time.sleep(1)
    if kind == "abort":
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()
    done(left=True)

if kind == "abort-body":
    # Goes in the middle of its own body.
    say(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n" + "x" * 1000)
    time.sleep(0.5)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()
    done(left=True)

if kind == "half-close":
    # Ends its direction at once, and still gets all of the answer.
    say(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
    stream.shutdown(socket.SHUT_WR)
    text, how = rest()
    done(text=text.decode("latin1"), how=how)

if kind == "read":
    # Reads to the end, and says how it ended.
    say(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    text, how = rest()
    done(head=text[:200].decode("latin1"), bytes=len(text), how=how)

if kind == "stall":
    # Asks for a flood and reads nothing of it for a while.
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    say(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
    time.sleep(5)
    print("stalled", flush=True)
    sys.stdin.read()
    done(left=True)

if kind == "push":
    # Sends as much as is taken within some seconds.
    say(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000000\r\n\r\n")
    stream.settimeout(3)
    sent = 0
    try:
        while sent < 1000000000:
            sent += stream.send(b"x" * 65536)
    except TimeoutError:
        pass
    done(sent=sent)

if kind == "slow":
    # A body that takes its time.
    say(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(10):
        say(f"1\r\n{number}\r\n")
        time.sleep(0.1)
    say("0\r\n\r\n")
    text, how = rest()
    done(text=text.decode("latin1"), how=how)

if kind == "early":
    # Sends a large body while the answer is there already.
    say(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10000000\r\n\r\n")
    answer = until(b"early")
    stream.sendall(b"x" * 10000000)
    say(f"GET /after HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    text, how = rest()
    done(first=answer.decode("latin1"), second=text.decode("latin1"), how=how)

if kind == "connect":
    say(f"CONNECT {path} HTTP/1.1\r\nHost: {path}\r\n\r\n")
    head = until(b"\r\n\r\n").decode("latin1")
    say("to the other end")
    echoed = exactly(16).decode()
    stream.shutdown(socket.SHUT_WR)
    text, how = rest()
    done(head=head, echoed=echoed, last=text.decode(), how=how)

if kind == "websocket":
    key = base64.b64encode(os.urandom(16)).decode()
    say(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n")
    say(f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n")
    head = until(b"\r\n\r\n").decode("latin1")

    def frame(first, data):
        size = len(data)
        length = bytes([128 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
        mask = os.urandom(4)
        stream.sendall(bytes([first]) + length + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)))

    def came():
        first, size = exactly(2)
        if size == 126:
            size = struct.unpack(">H", exactly(2))[0]
        return first, exactly(size)

    good = True
    for size in (0, 5, 125, 126, 20000):
        data = os.urandom(size)
        frame(0x82, data)
        good = good and came() == (0x82, data)
    frame(0x89, b"ping")
    good = good and came() == (0x89, b"ping")
    frame(0x88, struct.pack(">H", 4000) + b"bye")
    first, data = came()
    code = struct.unpack(">H", data)[0]
    _, how = rest()
    done(head=head, good=good, first=first, code=code, how=how)
