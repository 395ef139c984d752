# A server that notes what it is asked, byte by byte, and does odd things when it is told so by the path.
# python3 -c ODD PORT. `GET /asked` tells what it was asked since it was last told to; nothing of that is noted.
import base64, hashlib, json, socket, struct, sys, threading, time

asked, ended, sent = [], [], {}


def reset(stream):
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


class Reader:
    def __init__(self, stream):
        self.stream, self.held = stream, b""

    def until(self, mark):
        while mark not in self.held:
            more = self.stream.recv(65536)
            if not more:
                raise EOFError
            self.held += more
        part, self.held = self.held.split(mark, 1)
        return part

    def exactly(self, size):
        while len(self.held) < size:
            more = self.stream.recv(65536)
            if not more:
                raise EOFError
            self.held += more
        part, self.held = self.held[:size], self.held[size:]
        return part

    def body(self, headers):
        if headers.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.until(b"\r\n").split(b";")[0], 16):
                parts.append(self.exactly(size))
                self.until(b"\r\n")
            trailers = []
            while line := self.until(b"\r\n"):
                trailers.append(line.decode())
            return b"".join(parts), trailers
        return self.exactly(int(headers.get("content-length", 0))), []


def reply(stream, status, body, more=""):
    stream.sendall(f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def serve(stream):
    reader = Reader(stream)
    try:
        while request(stream, reader):
            pass
        stream.close()
    except (EOFError, OSError, ValueError):
        stream.close()


def request(stream, reader):
    head = reader.until(b"\r\n\r\n").decode("latin1")
    line, *lines = head.split("\r\n")
    method, target, _ = line.split(" ")
    headers = {}
    for one in lines:
        name, value = one.split(":", 1)
        headers[name.lower()] = value.strip()
    path = target.split("?")[0]
    if path == "/asked":
        reply(stream, "200 OK", json.dumps({"asked": asked, "ended": ended, "sent": sent}).encode())
        asked.clear(), ended.clear(), sent.clear()
        return True
    note = {"line": line, "headers": headers}
    asked.append(note)
    if path.startswith("/early/"):
        # Answers before the body has come, and goes on reading it.
        reply(stream, f"{path[7:]} Early", b"early")
        note["body"] = len(reader.body(headers)[0])
        return True
    if path.startswith("/refuse/"):
        # Answers before the body has come, and does not read it.
        reply(stream, f"{path[8:]} Refused", b"refused", "Connection: close\r\n")
        return False
    if path == "/reset":
        return reset(stream)
    if path == "/close":
        return False
    if path == "/noise":
        stream.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        return False
    if path == "/half-reset":
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
        time.sleep(1.5)
        return reset(stream)
    if path == "/half-close":
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
        return False
    if path == "/to-the-end":
        # Its length is its end: one direction ends, the other is still read.
        stream.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        stream.shutdown(socket.SHUT_WR)
        reader.exactly(1 << 30)
    if path == "/hold":
        # Never answers; notes when its client has gone.
        try:
            reader.exactly(1 << 30)
        except EOFError:
            pass
        except OSError:
            pass
        ended.append(target)
        return False
    if path == "/hints":
        stream.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
        stream.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
    if path == "/flood":
        # As much as its client takes.
        stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        sent[target] = 0
        while sent[target] < 1000000000:
            sent[target] += stream.send(b"x" * 65536)
        return True
    if path == "/stall":
        # Reads nothing of the body until somebody asks what it was asked.
        while note in asked:
            time.sleep(0.05)
    if method == "CONNECT":
        stream.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        return tunnel(stream, reader)
    if headers.get("upgrade") == "websocket":
        return websocket(stream, reader, headers)
    body, trailers = reader.body(headers)
    note["body"], note["trailers"] = len(body), trailers
    if path == "/trailers":
        stream.sendall(b"HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n")
        stream.sendall(b"5\r\nhello\r\n0\r\nx-sum: %d\r\n\r\n" % len(body))
        return True
    if path == "/slow-chunks":
        stream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(10):
            stream.sendall(b"1\r\n%d\r\n" % number)
            time.sleep(0.1)
        stream.sendall(b"0\r\n\r\n")
        return True
    reply(stream, "200 OK", json.dumps(note).encode())
    return headers.get("connection", "").lower() != "close"


def tunnel(stream, reader):
    stream.sendall(reader.held)
    while data := stream.recv(65536):
        stream.sendall(data)
    stream.sendall(b"the end")
    return False


def websocket(stream, reader, headers):
    key = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    stream.sendall(f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())
    while True:
        first, second = reader.exactly(2)
        size = second & 127
        if size == 126:
            size = struct.unpack(">H", reader.exactly(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", reader.exactly(8))[0]
        mask = reader.exactly(4)
        data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(reader.exactly(size)))
        length = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size)
        # Every frame comes back; an end with code 4000 is answered with 4001.
        if first & 15 == 8:
            code = struct.unpack(">H", data[:2])[0]
            ended.append(code)
            stream.sendall(b"\x88\x02" + struct.pack(">H", 4001 if code == 4000 else code))
            return False
        stream.sendall(bytes([first]) + length + data)


server = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
print("ready", flush=True)
while True:
    stream, _ = server.accept()
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=serve, args=[stream], daemon=True).start()
