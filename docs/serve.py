"""A web service around an exported model: python docs/serve.py model.onnx 8000

curl --data-binary @street.jpg http://127.0.0.1:8000
"""

import json
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_BYTES, MAX_PIXELS = 20_000_000, 50_000_000
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))  # read when cv2 is imported

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from project.errors import UserError  # noqa: E402
from project.runtime import load  # noqa: E402


class Handler(BaseHTTPRequestHandler):
    timeout = 30  # seconds that a client may keep a connection without sending

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > MAX_BYTES:
            return self.send_error(413, "send a Content-Length", f"of up to {MAX_BYTES} bytes")
        try:
            found = self.server.find(self.rfile.read(int(length)))
        except (cv2.error, UserError) as error:  # no picture, too many pixels, or too narrow
            return self.send_error(400, "this picture cannot be used", str(error))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())


class Server(ThreadingHTTPServer):
    def __init__(self, model: str, port: int, score_threshold: float = 0.5):
        self.detector = load(model, score_threshold=score_threshold)
        super().__init__(("127.0.0.1", port), Handler)

    def find(self, content: bytes) -> list[dict]:
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise UserError("that is no picture")
        return [as_json(found) for found in self.detector(image[..., ::-1])]


def as_json(found) -> dict:
    pixels = found.mask(0).view(np.uint8)
    outlines, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    values = {"score": float(found.scores[0]), "box_xyxy": found.boxes_xyxy[0].tolist()}
    polygons = [outline[:, 0].tolist() for outline in outlines]
    return {"class": found.class_names[0], **values, "polygons": polygons}


if __name__ == "__main__":
    Server(sys.argv[1], int(sys.argv[2])).serve_forever()
