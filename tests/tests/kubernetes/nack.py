"""A proxy that takes everything but what is named: `nack.py ADDRESS TYPE TEXT`, with grpc and the official messages."""
import queue, sys
import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

address, refused, text, node_id = sys.argv[1:5]
types = ["cluster.v3.Cluster", "listener.v3.Listener", "route.v3.RouteConfiguration"]
requests = queue.Queue()

def request(url, **more):
    made = discovery_pb2.DiscoveryRequest(type_url=url, **more)
    made.node.id = node_id
    fields = {"PROXY": "pillion", "SERVICE": "shopper", "NAMESPACE": "shop", "SERVICE_ACCOUNT": "shopper",
              "ADDRESS": "127.0.0.1", "OUTBOUND_PORT": "15001", "INSTANCE": node_id}
    made.node.metadata.update(fields)
    requests.put(made)

for name in types:
    names = ["outbound"] if name.startswith("route") else []
    request("type.googleapis.com/envoy.config." + name, resource_names=names)
stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(grpc.insecure_channel(address))
for response in stub.StreamAggregatedResources(iter(requests.get, None)):
    names = ["outbound"] if "route" in response.type_url else []
    if refused in response.type_url:
        answer = {"error_detail": {"code": 3, "message": text}}
    else:
        answer = {"version_info": response.version_info}
    request(response.type_url, resource_names=names, response_nonce=response.nonce, **answer)
    print("answered", response.type_url, flush=True)
