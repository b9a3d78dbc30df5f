"""Certificates for tests, made by the openssl command in a directory of the test's."""

import os
import ssl
import subprocess


def _openssl(*arguments):
    done = subprocess.run(["openssl", *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"openssl {' '.join(arguments)}: {done.stderr}")


class Authority:
    """A CA, and what it signs. Files are directory/NAME.crt and NAME.key."""

    def __init__(self, directory, name="ca"):
        self.directory = directory
        self.name = name
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-keyout", self.key(name), "-out", self.crt(name), "-days", "2", "-subj",
                 f"/CN={name}")

    def crt(self, name=None):
        return os.path.join(self.directory, f"{name or self.name}.crt")

    def key(self, name):
        return os.path.join(self.directory, f"{name}.key")

    def issue(self, name, names, days=2):
        """names: as openssl writes them, "DNS:localhost,IP:127.0.0.1". days -1: it has expired."""
        request, extensions = (os.path.join(self.directory, f"{name}.{end}") for end in
                               ("csr", "ext"))
        with open(extensions, "w", encoding="ascii") as out:
            out.write(f"subjectAltName={names}\n" if names else "basicConstraints=CA:FALSE\n")
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                 "-keyout", self.key(name) + ".new", "-out", request, "-subj", f"/CN={name}")
        _openssl("x509", "-req", "-in", request, "-CA", self.crt(), "-CAkey", self.key(self.name),
                 "-CAcreateserial", "-days", str(days), "-extfile", extensions, "-out",
                 self.crt(name) + ".new")
        # Whoever reads meanwhile has a pair that fits, or a mistake it tells; never half a file.
        os.replace(self.key(name) + ".new", self.key(name))
        os.replace(self.crt(name) + ".new", self.crt(name))

    def issue_node(self, number, days=2):
        self.issue(f"n{number}", f"DNS:bop-node-{number},DNS:localhost,IP:127.0.0.1", days)

    def context(self, name=None):
        """For a client that trusts this CA and shows the certificate of that name."""
        context = ssl.create_default_context(cafile=self.crt())
        if name:
            context.load_cert_chain(self.crt(name), self.key(name))
        return context
