# Clients of app.py. python3 -c CLIENT steps HOST STEP... | burst HOST COUNT PATH | load HOST
import http.client, json, select, sys, threading

kind, host, rest = sys.argv[1], sys.argv[2], sys.argv[3:]


def connect():
    return http.client.HTTPConnection(host, 80, timeout=30)


def ask(connection, path, method="GET"):
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    told = json.loads(body) if body.startswith(b"{") else {}
    return {"status": response.status, "overloaded": response.headers.get("x-envoy-overloaded"), **told}


if kind == "steps":
    # One after the other on one connection; a number is a pause in seconds.
    connection, pause = connect(), threading.Event()
    asked = [ask(connection, step) if step.startswith("/") else pause.wait(float(step)) for step in rest]
    print(json.dumps([one for one in asked if one]))

if kind == "burst":
    # So many at once, each on a connection of its own.
    count, answers = int(rest[0]), []
    begin = threading.Barrier(count)

    def one():
        connection = connect()
        connection.connect()
        begin.wait()
        answers.append(ask(connection, rest[1]))

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(answers))

if kind == "load":
    # Request after request on one connection for as long as stdin is open; what fails is counted, with the first reason. POST,
    # for what may have been read is not sent again.
    connection, good, bad, why, connections = connect(), 0, 0, None, 0
    print(json.dumps({"begun": True}), flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            connections += connection.sock is None
            answer = ask(connection, "/", "POST")
            good, bad = good + (answer["status"] == 200), bad + (answer["status"] != 200)
            why = why or (answer if answer["status"] != 200 else None)
        except Exception as error:
            bad, why = bad + 1, why or repr(error)
            connection.close()
    print(json.dumps({"good": good, "bad": bad, "why": why, "connections": connections}))
