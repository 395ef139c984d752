# Clients for the tests of L7. python3 -c CLIENT raw HOST PORT TEXT | load HOST PORT SECONDS
import http.client, json, socket, sys, time

kind, host, port, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]

if kind == "raw":
    # Says exactly this, ends its direction, and reads to the end.
    with socket.create_connection((host, port), timeout=10) as stream:
        stream.sendall(last.encode().decode("unicode_escape").encode("latin1"))
        stream.shutdown(socket.SHUT_WR)
        answer = b""
        while data := stream.recv(65536):
            answer += data
    print(json.dumps({"answer": answer.decode("latin1")}))

if kind == "load":
    # Request after request on one connection; what fails is counted, with the first reason.
    until, counts, bad, why, seen = time.monotonic() + float(last), {}, 0, None, []
    connection = http.client.HTTPConnection(host, port, timeout=10)
    while time.monotonic() < until:
        try:
            connection.request("GET", "/load")
            response = connection.getresponse()
            body = response.read()
            if response.status == 200:
                who = json.loads(body)["who"]
                counts[who] = counts.get(who, 0) + 1
            else:
                bad, why = bad + 1, why or f"{response.status} {body!r}"
        except Exception as error:
            bad, why = bad + 1, why or repr(error)
            connection.close()
    print(json.dumps({"counts": counts, "bad": bad, "why": why}))
