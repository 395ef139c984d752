# A gRPC client for the tests of L7. python3 -c CLIENT KIND TARGET TEXT; the last line of output is JSON.
import json, sys, time

import grpc

kind, target, text = sys.argv[1], sys.argv[2], sys.argv[3]
# Its own retries would hide what is to be seen.
channel = grpc.insecure_channel(target, options=[("grpc.enable_retries", 0)])


def unary(method, sent, **more):
    return channel.unary_unary(f"/shop.Cart/{method}")(sent.encode(), timeout=more.pop("timeout", 30), **more)


def outcome(call):
    began = time.monotonic()
    try:
        answer = call()
        return {"code": "OK", "text": answer.decode() if isinstance(answer, bytes) else answer}
    except grpc.RpcError as error:
        return {
            "code": error.code().name,
            "details": error.details(),
            "trailers": {key: value for key, value in error.trailing_metadata() or ()},
            "seconds": time.monotonic() - began,
        }


if kind == "call":
    # METHOD MESSAGE
    method, _, sent = text.partition(" ")
    print(json.dumps(outcome(lambda: unary(method, sent, metadata=[("x-user", "jason")]))))

if kind == "streams":
    count = int(text)
    listed = [part.decode() for part in channel.unary_stream("/shop.Cart/List")(str(count).encode(), timeout=60)]
    added = channel.stream_unary("/shop.Cart/Add")((b"x" * 1000 for _ in range(count)), timeout=60)

    # One after the other: each is sent when the one before has come back.
    def questions():
        for number in range(count):
            while len(echoed) < number:
                time.sleep(0.001)
            yield str(number).encode() * 100

    echoed = []
    for part in channel.stream_stream("/shop.Cart/Chat")(questions(), timeout=60):
        echoed.append(part)
    right = echoed == [str(number).encode() * 100 for number in range(count)]
    print(json.dumps({"listed": listed, "added": added.decode(), "chat": right}))

if kind == "deadline":
    print(json.dumps(outcome(lambda: unary("Slow", text, timeout=1))))

if kind == "cancel":
    call = channel.unary_unary("/shop.Cart/Slow").future(text.encode(), timeout=30)
    time.sleep(1)
    call.cancel()
    print(json.dumps(outcome(lambda: call.result())) if not call.cancelled() else json.dumps({"code": "CANCELLED"}))
    time.sleep(0.5)

if kind == "many":
    # Many calls at a time on one connection.
    calls = [channel.unary_unary("/shop.Cart/Get").future(b"x", timeout=60) for _ in range(int(text))]
    counts = {}
    for call in calls:
        who = json.loads(call.result())["who"]
        counts[who] = counts.get(who, 0) + 1
    print(json.dumps(counts))
