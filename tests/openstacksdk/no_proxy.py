"""Prints, for each row of a table, whether urllib, requests and curl use no proxy.

The first argument is the table: `no_proxy<TAB>url<TAB>...`, a heading first. A line of the
output is `urllib<TAB>requests<TAB>curl`, each `direct` or `proxy`. Needs curl in the path.
"""

import http.server
import os
import subprocess
import sys
import threading
import urllib.parse
import urllib.request

import requests.utils

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "6")
        self.end_headers()
        self.wfile.write(b"direct")

    def do_CONNECT(self):
        self.send_error(403)

    def log_message(self, *_):
        pass


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def by_curl(no_proxy, url, direct, proxy):
    bare = {k: v for k, v in os.environ.items() if k.lower() not in VARIABLES}
    scheme = url.partition(":")[0]
    done = subprocess.run(
        ["curl", "-sS", "-g", "--connect-to", f"::127.0.0.1:{direct}", url],
        env=bare | {f"{scheme}_proxy": f"http://127.0.0.1:{proxy}", "no_proxy": no_proxy},
        capture_output=True,
        text=True,
        check=False,
    )
    # The proxy rejects the tunnel that `--connect-to` makes curl open.
    if done.returncode == 56 and "CONNECT tunnel failed" in done.stderr:
        return "proxy"
    assert done.stdout == "direct", (no_proxy, url, done)
    return "direct"


def main():
    for name in VARIABLES:
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    direct, proxy = serve(), serve()
    with open(sys.argv[1], encoding="utf-8") as table:
        rows = [line.rstrip("\n").split("\t") for line in table if line.strip()][1:]
    for row in rows:
        no_proxy, url = row[:2]
        os.environ["no_proxy"] = no_proxy
        netloc = urllib.parse.urlsplit(url).netloc
        answers = [
            "direct" if bypass else "proxy"
            for bypass in (
                urllib.request.proxy_bypass(netloc),
                requests.utils.should_bypass_proxies(url, None),
            )
        ]
        print(*answers, by_curl(no_proxy, url, direct, proxy), sep="\t", flush=True)


if __name__ == "__main__":
    main()
