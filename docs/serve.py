#!/usr/bin/env python
"""A web service around an exported model, on this machine only: a picture in, its objects out.

python docs/serve.py model.onnx 8000
curl --data-binary @street.jpg http://127.0.0.1:8000
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_BYTES, MAX_PIXELS = 20_000_000, 50_000_000
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))  # read when cv2 is imported

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from project.runtime import Detections, load  # noqa: E402


class Handler(BaseHTTPRequestHandler):
    timeout = 30  # seconds that a client may keep a connection without sending

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_BYTES:
            return self.send_error(413 if length.isdigit() else 411)
        data = np.frombuffer(self.rfile.read(int(length)), dtype=np.uint8)
        try:
            image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        except cv2.error:  # too many pixels
            image = None
        if image is None:
            return self.send_error(400, "no picture, or a too large one")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(to_json(self.server.detector(image[..., ::-1]))).encode())


def to_json(detections: Detections) -> list[dict]:
    objects = []
    for found in detections:
        pixels = found.mask(0).view(np.uint8)
        outlines, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        polygons = [outline[:, 0].tolist() for outline in outlines]
        name, score, box = found.class_names[0], found.scores[0], found.boxes_xyxy[0]
        values = {"score": float(score), "box_xyxy": box.tolist(), "polygons": polygons}
        objects.append({"class": name, **values})
    return objects


def make_server(model: str, port: int, score_threshold: float = 0.5) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.detector = load(model, score_threshold=score_threshold)
    return server


if __name__ == "__main__":
    make_server(sys.argv[1], int(sys.argv[2])).serve_forever()
