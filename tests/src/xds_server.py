"""A management server of gRPC's own Python library with the official xDS messages.

It speaks every discovery service, in delta and state of the world, ADS too, and takes load reports.
What it serves stands in a JSON file {type url: [resource, ...]} that is looked at again and again; what
it hears goes to its output, a line of JSON for each message.
"""

import hashlib
import json
import os
import queue
import sys
import threading
from concurrent import futures

import grpc
from google.protobuf import any_pb2, json_format
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.load_stats.v3 import lrs_pb2

PREFIX = "type.googleapis.com/"
KINDS = {
    "Listeners": listener_pb2.Listener,
    "Clusters": cluster_pb2.Cluster,
    "Routes": route_pb2.RouteConfiguration,
    "Endpoints": endpoint_pb2.ClusterLoadAssignment,
    "Secrets": secret_pb2.Secret,
    "ExtensionConfigs": extension_pb2.TypedExtensionConfig,
}
TYPES = {PREFIX + kind.DESCRIPTOR.full_name: kind for kind in KINDS.values()}

path = sys.argv[1]
lock = threading.Lock()
streams = 0


def say(**line):
    with lock:
        print(json.dumps(line), flush=True)


def resources(url):
    """By name: version and packed message."""
    try:
        found = json.load(open(path)).get(url, [])
    except ValueError:
        return {}
    made = {}
    for value in found:
        packed = any_pb2.Any()
        packed.Pack(json_format.ParseDict(value, TYPES[url]()), PREFIX)
        version = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
        made[value.get("name", value.get("cluster_name"))] = (version, packed)
    return made


def events(requests, context):
    """Requests as they come, and None now and then."""
    work = queue.Queue()

    def read():
        try:
            for request in requests:
                work.put(request)
        except grpc.RpcError:
            pass
        work.put(StopIteration)

    threading.Thread(target=read, daemon=True).start()
    while context.is_active():
        try:
            request = work.get(timeout=0.05)
        except queue.Empty:
            yield None
            continue
        if request is StopIteration:
            return
        yield request


def number():
    global streams
    with lock:
        streams += 1
        return streams


def node_of(request):
    return request.node.id if request.HasField("node") else None


def world(method):
    kind = KINDS.get(method.rsplit("/Stream", 1)[1])

    def serve(requests, context):
        stream, count, asked, sent = number(), 0, {}, {}
        for request in events(requests, context):
            if request is not None:
                url = request.type_url or PREFIX + kind.DESCRIPTOR.full_name
                names = sorted(request.resource_names)
                say(stream=stream, method=method, node=node_of(request), type=url, names=names,
                    answers=bool(request.response_nonce), error=request.error_detail.message)
                if asked.get(url) != names:
                    asked[url] = names
                    sent.pop(url, None)
            for url, names in asked.items():
                if url not in TYPES:
                    continue
                have = {name: one for name, one in resources(url).items() if not names or name in names}
                versions = {name: version for name, (version, _) in have.items()}
                if sent.get(url) == versions or (names and not have):
                    continue
                sent[url] = versions
                count += 1
                yield discovery_pb2.DiscoveryResponse(
                    type_url=url, version_info=str(count), nonce=str(count),
                    resources=[packed for _, packed in have.values()])

    return grpc.stream_stream_rpc_method_handler(
        serve, discovery_pb2.DiscoveryRequest.FromString,
        discovery_pb2.DiscoveryResponse.SerializeToString)


def delta(method):
    kind = KINDS.get(method.rsplit("/Delta", 1)[1])

    def serve(requests, context):
        stream, count, asked, sent = number(), 0, {}, {}
        for request in events(requests, context):
            if request is not None:
                url = request.type_url or PREFIX + kind.DESCRIPTOR.full_name
                subscribe = sorted(request.resource_names_subscribe)
                unsubscribe = sorted(request.resource_names_unsubscribe)
                say(stream=stream, method=method, node=node_of(request), type=url,
                    names=subscribe, gone=unsubscribe, answers=bool(request.response_nonce),
                    error=request.error_detail.message,
                    held=sorted(request.initial_resource_versions))
                known = sent.setdefault(url, dict(request.initial_resource_versions))
                if url not in asked:
                    asked[url] = set(subscribe or ["*"])
                else:
                    asked[url] |= set(subscribe)
                for name in subscribe:
                    known.setdefault(name, "?")
                for name in unsubscribe:
                    asked[url].discard(name)
                    known.pop(name, None)
            for url, names in asked.items():
                if url not in TYPES:
                    continue
                have = resources(url)
                known = sent[url]
                wanted = {name: one for name, one in have.items() if name in names or "*" in names}
                fresh = {name: one for name, one in wanted.items() if known.get(name) != one[0]}
                gone = [name for name in known if name not in wanted]
                if not fresh and not gone:
                    continue
                for name in gone:
                    del known[name]
                known.update({name: version for name, (version, _) in fresh.items()})
                count += 1
                yield discovery_pb2.DeltaDiscoveryResponse(
                    type_url=url, system_version_info=str(count), nonce=str(count),
                    removed_resources=gone,
                    resources=[discovery_pb2.Resource(name=name, version=version, resource=packed)
                               for name, (version, packed) in fresh.items()])

    return grpc.stream_stream_rpc_method_handler(
        serve, discovery_pb2.DeltaDiscoveryRequest.FromString,
        discovery_pb2.DeltaDiscoveryResponse.SerializeToString)


def load(method):
    """What is to be reported stands under "lrs" in the file."""

    def serve(requests, context):
        stream, told = number(), None
        for request in events(requests, context):
            if request is not None:
                say(stream=stream, method=method, node=node_of(request),
                    report=json_format.MessageToDict(
                        request, preserving_proto_field_name=True)["cluster_stats"]
                    if request.cluster_stats else [])
            wanted = json.load(open(path)).get("lrs")
            if wanted is not None and wanted != told:
                told = wanted
                yield json_format.ParseDict(wanted, lrs_pb2.LoadStatsResponse())

    return grpc.stream_stream_rpc_method_handler(
        serve, lrs_pb2.LoadStatsRequest.FromString, lrs_pb2.LoadStatsResponse.SerializeToString)


class Every(grpc.GenericRpcHandler):
    def service(self, details):
        method = details.method
        if method.endswith("/StreamLoadStats"):
            return load(method)
        if "/Stream" in method:
            return world(method)
        if "/Delta" in method:
            return delta(method)
        return None


server = grpc.server(futures.ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 1)])
server.add_generic_rpc_handlers((Every(),))
for address in sys.argv[2:]:
    server.add_insecure_port(address)
server.start()
say(listening=os.getpid())
server.wait_for_termination()
