# A gRPC server for the tests of L7; messages are plain bytes. python3 -c SERVER NAME PORT
import json, sys, threading
from concurrent import futures

import grpc

name, port = sys.argv[1], sys.argv[2]
failures, cancelled = {}, []


def get(request, context):
    asked = {"who": name, "sent": request.decode(), "metadata": dict(context.invocation_metadata())}
    context.set_trailing_metadata([("x-last", "word")])
    return json.dumps(asked).encode()


def list_(request, context):
    for number in range(int(request)):
        yield f"{name} {number}".encode()


def add(requests, context):
    return f"{name} {sum(len(request) for request in requests)}".encode()


def chat(requests, context):
    for request in requests:
        yield request


def fail(request, context):
    context.set_trailing_metadata([("x-why", "because")])
    context.abort(getattr(grpc.StatusCode, request.decode()), "50% gr\u00fcn")


def slow(request, context):
    done = threading.Event()
    key = request.decode()
    context.add_callback(lambda: (cancelled.append(key), done.set()))
    done.wait(60)
    return b"late"


def flaky(request, context):
    # So many failures before the first success, by the name of the sequence.
    key, times = request.decode().split(" ")
    failures[key] = failures.get(key, 0) + 1
    if failures[key] <= int(times):
        context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
    return f"{name} {failures[key]}".encode()


def told(request, context):
    return json.dumps(cancelled).encode()


server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
handlers = {
    "Get": grpc.unary_unary_rpc_method_handler(get),
    "List": grpc.unary_stream_rpc_method_handler(list_),
    "Add": grpc.stream_unary_rpc_method_handler(add),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
    "Flaky": grpc.unary_unary_rpc_method_handler(flaky),
    "Cancelled": grpc.unary_unary_rpc_method_handler(told),
}
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Cart", handlers)])
server.add_insecure_port(f"[::]:{port}")
server.start()
print("ready", flush=True)
server.wait_for_termination()
