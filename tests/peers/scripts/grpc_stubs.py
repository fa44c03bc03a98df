"""The modules of echo.proto, compiled on import into a folder that goes with the process."""

import pathlib
import sys
import tempfile

from grpc_tools import protoc

_folder = tempfile.TemporaryDirectory()
_here = pathlib.Path(__file__).parent
_arguments = ["protoc", f"-I{_here}", f"--python_out={_folder.name}", f"--grpc_python_out={_folder.name}", "echo.proto"]
if protoc.main(_arguments) != 0:
    sys.exit("echo.proto does not compile")
sys.path.insert(0, _folder.name)

import echo_pb2 as messages
import echo_pb2_grpc as stubs
