"""A real S3 server, with TLS, in a directory of its own."""

import http.client
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time

ACCESS_KEY = "access-key"
SECRET_KEY = "secret/key+with=signs"
REGION = "eu-test-1"
BUCKET = "test-bucket"
KMS_KEY = "bop-key"


def program(source_root):
    """The path of the server's program, and "" or why there is none."""
    done = subprocess.run([os.path.join(source_root, "scripts", "s3-server")],
                          capture_output=True, text=True)
    if done.returncode != 0:
        return None, (done.stderr.strip().splitlines() or ["scripts/s3-server failed"])[-1]
    return done.stdout.strip(), ""


def make_certificate(folder, name):
    """A self-made certificate for localhost and 127.0.0.1, which is its own CA."""
    key, certificate = os.path.join(folder, "private.key"), os.path.join(folder, "public.crt")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                    "-addext", f"subjectAltName=DNS:localhost,DNS:{BUCKET}.localhost,IP:127.0.0.1",
                    "-keyout", key, "-out", certificate],
                   check=True, capture_output=True)
    return certificate


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, path):
        self.folder = tempfile.mkdtemp(prefix="bop-s3-")
        certificates = os.path.join(self.folder, "certs")
        os.makedirs(certificates)
        self.ca_file = make_certificate(certificates, "bop test server")
        self.port = free_port()
        self.endpoint = f"https://127.0.0.1:{self.port}"
        data = os.path.join(self.folder, "data")
        os.makedirs(os.path.join(data, BUCKET))  # A folder is a bucket.
        self._log = open(os.path.join(self.folder, "log"), "wb")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": self.folder,
            "MINIO_ROOT_USER": ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": SECRET_KEY,
            "MINIO_SITE_REGION": REGION,
            "MINIO_DOMAIN": "localhost",
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_KMS_SECRET_KEY": f"{KMS_KEY}:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        }
        self.process = subprocess.Popen(
            [path, "server", "--address", f"127.0.0.1:{self.port}", "--certs-dir", certificates,
             data], stdout=self._log, stderr=self._log, env=environment)
        self._wait()

    def _wait(self):
        context = ssl.create_default_context(cafile=self.ca_file)
        end = time.monotonic() + 60
        while True:
            try:
                connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5,
                                                         context=context)
                connection.request("GET", "/minio/health/live")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                with open(self._log.name, errors="replace") as log:
                    raise AssertionError("the S3 server did not start: " + log.read()[-2000:])
            time.sleep(0.1)

    def close(self):
        self.process.kill()
        self.process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
