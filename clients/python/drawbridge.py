"""Calls and watches the rpcs of a Drawbridge gateway from the command line.

    drawbridge.py call  SERVICE/METHOD [JSON]     one request, one response
    drawbridge.py watch SERVICE/METHOD [JSON]     one request, a line per message
    drawbridge.py list  [WORD]                    the rpcs, or those with WORD in their name

Reads the message types from the .proto files of the repository, which it compiles at each
run: there is no generated code. JSON `-` is read from stdin; it may name fields as in the
REST API (`server_id`) or in camelCase. Responses are written to stdout as JSON, errors to
stderr with code, message and details.

Exit code: 0, 2 for invalid arguments, 64 + the gRPC code if the call fails (like
grpcurl), 130 after Ctrl-C.
"""
import argparse
import contextlib
import ipaddress
import json
import os
import sys
import tempfile
from pathlib import Path

import grpc
import grpc_tools
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.rpc import error_details_pb2, status_pb2  # noqa: F401  (details are decoded by name)
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[2] / "proto"
DETAILS = "grpc-status-details-bin"


class Usage(Exception):
    """The arguments are invalid. Nothing was sent."""


def compile_protos(directories):
    """Compiles the .proto files below the directories; returns a descriptor pool and their files."""
    files = sorted({str(f.relative_to(d)) for d in directories for f in d.rglob("*.proto")})
    if not files:
        raise Usage(f"no .proto files in {', '.join(map(str, directories))}: name their directory with --proto")
    includes = [*directories, Path(grpc_tools.__file__).parent / "_proto"]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "all.binpb")
        code = protoc.main(["protoc", *(f"-I{i}" for i in includes), "--include_imports",
                            f"--descriptor_set_out={out}", *files])
        if code != 0:
            raise Usage("the .proto files do not compile")
        compiled = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in compiled.file:
        pool.Add(file)
    return pool, [pool.FindFileByName(name) for name in files]


def rpcs(files):
    """Returns every rpc of the files, as `package.Service/Method`, with its descriptor."""
    return {f"{service.full_name}/{method.name}": method
            for file in files
            for service in file.services_by_name.values()
            for method in service.methods}


def find_rpc(methods, wanted):
    """Returns the rpc of this name; a unique name needs neither package nor service."""
    wanted = wanted.strip("/")
    found = [method for name, method in methods.items() if f"/{name}".replace("/", ".").endswith(
        "." + wanted.replace("/", "."))]
    if len(found) == 1:
        return found[0]
    method = wanted.replace("/", ".").rpartition(".")[2]
    near = [name for name in methods if method.lower() in name.lower()] or list(methods)
    raise Usage(f"{wanted} does not name exactly one rpc; similar rpcs:\n  " + "\n  ".join(sorted(near)))


def channel(options):
    """Returns a channel to the gateway, with TLS if --tls is set."""
    host = options.address.rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            os.environ["no_grpc_proxy"] = host
    settings = [("grpc.max_receive_message_length", -1)]
    if not options.tls:
        return grpc.insecure_channel(options.address, settings)
    read = lambda path: Path(path).read_bytes() if path else None
    return grpc.secure_channel(options.address, grpc.ssl_channel_credentials(
        read(options.ca), read(options.key), read(options.cert)), settings)


def metadata(options):
    """Returns the metadata of the request, from --upstream and --header."""
    pairs = [("drawbridge-upstream", options.upstream)] if options.upstream else []
    for header in options.header:
        name, colon, value = header.partition(":")
        if not colon:
            raise Usage(f"--header {header!r}: write it as 'name: value'")
        pairs.append((name.strip().lower(), value.strip()))
    return pairs


def plain(value):
    """Writes integers in arbitrary JSON as `5`, not `5.0`: protobuf has only doubles there."""
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [plain(member) for member in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def text(message, indent):
    """Returns a message as JSON, with field names as in the REST API."""
    return json.dumps(plain(json_format.MessageToDict(message, preserving_proto_field_name=True)),
                      indent=indent, ensure_ascii=False)


def details(error):
    """Yields the google.rpc details of a failed call, one line each."""
    for name, value in error.trailing_metadata() or ():
        if name != DETAILS:
            continue
        for detail in status_pb2.Status.FromString(value).details:
            kind = detail.type_url.rpartition("/")[2]
            try:
                shown = json_format.MessageToDict(detail, preserving_proto_field_name=True)
                shown.pop("@type")
                yield f"{kind} {json.dumps(shown, ensure_ascii=False)}"
            except (TypeError, KeyError):
                yield f"{kind} of {len(detail.value)} bytes"


def run(options):
    """Runs the command."""
    pool, files = compile_protos(options.proto or [PROTO])
    methods = rpcs(files)
    if options.command == "list":
        for name, method in sorted(methods.items()):
            if options.word.lower() in name.lower():
                print(name, "(stream)" if method.server_streaming else "")
        return
    method = find_rpc(methods, options.method)
    if method.client_streaming or method.server_streaming != (options.command == "watch"):
        raise Usage(f"{method.name} is {'a stream: use watch' if method.server_streaming else 'not a stream: use call'}")
    body = sys.stdin.read() if options.json == "-" else options.json
    request = message_factory.GetMessageClass(method.input_type)()
    try:
        json_format.Parse(body, request, descriptor_pool=pool)
    except json_format.ParseError as problem:
        raise Usage(f"the request is not a valid {method.input_type.full_name}: {problem}") from None
    if options.command == "watch" and options.until:
        field = method.output_type.fields_by_name.get(options.until)
        if not field or not field.has_presence:
            raise Usage(f"{method.output_type.full_name} has no field {options.until} that can be unset")
    read = message_factory.GetMessageClass(method.output_type).FromString
    path = f"/{method.containing_service.full_name}/{method.name}"
    with channel(options) as to:
        open_rpc = to.unary_stream if method.server_streaming else to.unary_unary
        rpc = open_rpc(path, request_serializer=type(request).SerializeToString, response_deserializer=read)
        send = dict(timeout=options.timeout, metadata=metadata(options), wait_for_ready=False)
        if method.server_streaming:
            messages = rpc(request, **send)
            for count, message in enumerate(messages, 1):
                print(text(message, None), flush=True)
                if count == options.count or (options.until and message.HasField(options.until)):
                    messages.cancel()
                    return
            call = messages
        else:
            response, call = rpc.with_call(request, **send)
            print(text(response, 2))
        if options.verbose:
            for name, value in (*call.initial_metadata(), *call.trailing_metadata()):
                print(f"{name}: {value}", file=sys.stderr)


def arguments():
    parser = argparse.ArgumentParser(
        prog="drawbridge", description=__doc__.partition("\n")[0],
        epilog="Exit code: 0, 2 for invalid arguments, 64 + the gRPC code if the call fails.")
    parser.add_argument("-a", "--address", metavar="HOST:PORT",
                        default=os.environ.get("DRAWBRIDGE_ADDR", "127.0.0.1:50051"),
                        help="the gateway (default: $DRAWBRIDGE_ADDR, else 127.0.0.1:50051)")
    parser.add_argument("-u", "--upstream", metavar="NAME", help="the upstream to call (default: that of the family)")
    parser.add_argument("-H", "--header", metavar="'NAME: VALUE'", action="append", default=[],
                        help="request metadata, for example 'x-auth-token: ...'; may be repeated")
    parser.add_argument("-t", "--timeout", metavar="SECONDS", type=float, help="the deadline (default: none)")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the response metadata too")
    parser.add_argument("--proto", metavar="DIR", type=Path, action="append",
                        help=f"directory with .proto files; may be repeated (default: {PROTO})")
    parser.add_argument("--tls", action="store_true", help="use TLS")
    parser.add_argument("--ca", metavar="FILE", help="CA certificate of the gateway (PEM)")
    parser.add_argument("--cert", metavar="FILE", help="client certificate (PEM)")
    parser.add_argument("--key", metavar="FILE", help="private key of the client certificate (PEM)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("call", "call an rpc"), ("watch", "print the messages of a stream")):
        command = commands.add_parser(name, help=what)
        command.add_argument("method", metavar="SERVICE/METHOD")
        command.add_argument("json", metavar="JSON", nargs="?", default="{}", help="the request, - for stdin (default: {})")
        if name == "watch":
            command.add_argument("-n", "--count", type=int, help="end after this number of messages")
            command.add_argument("--until", metavar="FIELD", help="end after the first message that has this field")
    command = commands.add_parser("list", help="list the rpcs")
    command.add_argument("word", metavar="WORD", nargs="?", default="")
    return parser.parse_args()


def main():
    options = arguments()
    try:
        run(options)
    except Usage as problem:
        print(f"drawbridge: {problem}", file=sys.stderr)
        return 2
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        for line in details(error):
            print(f"  {line}", file=sys.stderr)
        return 64 + error.code().value[0]
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:                  # the reader, for example `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
