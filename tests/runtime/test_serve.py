"""The web service of docs/ answers with what the detector finds, and refuses what it should."""

import http.client
import importlib.util
import json
import threading

import cv2
import numpy as np
import pytest

from project.runtime import load
from tests.helpers import REPOSITORY


@pytest.fixture(scope="module")
def serve():
    spec = importlib.util.spec_from_file_location("serve", REPOSITORY / "docs/serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(serve, exported):
    server = serve.Server(str(exported), 0, score_threshold=0.1)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def post(server, body: bytes, **headers) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*server.server_address, timeout=30)
    connection.request("POST", "/", body=body, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_picture_is_answered_with_its_objects(server, exported, generated_root):
    file = sorted((generated_root / "test_images").iterdir())[0]
    status, body = post(server, file.read_bytes())
    expected = load(exported, score_threshold=0.1)(cv2.imread(str(file))[..., ::-1])
    found = json.loads(body)
    assert status == 200 and len(found) == len(expected) > 0
    assert [item["class"] for item in found] == list(expected.class_names)
    assert np.allclose([item["box_xyxy"] for item in found], expected.boxes_xyxy)
    for item, mask in zip(found, expected.masks, strict=True):
        filled = np.zeros(mask.shape, np.uint8)
        cv2.fillPoly(filled, [np.array(polygon) for polygon in item["polygons"]], 1)
        assert (filled.astype(bool) >= mask).all()


def test_what_is_no_picture_or_too_large_is_refused(server, serve, monkeypatch):
    assert post(server, b"no picture")[0] == 400
    assert post(server, b"")[0] == 400
    monkeypatch.setattr(serve, "MAX_BYTES", 100)
    assert post(server, b"x" * 101)[0] == 413
    for length in ("many", "²", "-1", 5000 * "9", "0000000000999999999"):
        assert post(server, b"", **{"Content-Length": length})[0] == 413


@pytest.mark.parametrize("shape", [(2, 3000), (5000, 1)])
def test_what_the_model_cannot_take_is_refused_too(server, shape):
    """It was answered with 200, and nothing."""
    content = cv2.imencode(".png", np.zeros((*shape, 3), np.uint8))[1].tobytes()
    status, body = post(server, content)
    assert status == 400 and b"cannot be used" in body
