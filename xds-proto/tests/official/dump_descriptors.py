"""Prints the descriptors of the named .proto files as a serialized FileDescriptorSet.

Usage: dump_descriptors.py FILE... > out.bin

The descriptors come from the generated modules of the PyPI package xds-protos.
"""

import importlib
import sys

from google.protobuf import descriptor_pb2, descriptor_pool


def main(names):
    pool = descriptor_pool.Default()
    result = descriptor_pb2.FileDescriptorSet()
    missing = []
    for name in names:
        module = name.removesuffix(".proto").replace("/", ".") + "_pb2"
        try:
            importlib.import_module(module)
            pool.FindFileByName(name).CopyToProto(result.file.add())
        except (ImportError, KeyError) as error:
            missing.append(f"{name}: {error}")
    if missing:
        sys.exit("not in xds-protos:\n" + "\n".join(missing))
    sys.stdout.buffer.write(result.SerializeToString())


if __name__ == "__main__":
    main(sys.argv[1:])
