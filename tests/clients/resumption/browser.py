"""Three requests by curl-cffi, libcurl on BoringSSL, in one session.

Usage: browser.py URL CA CERTIFICATE KEY
"""

import sys

from curl_cffi import requests

url, ca, certificate, key = sys.argv[1:]
session = requests.Session(verify=ca, cert=(certificate, key))
for _ in range(3):
    if session.get(url, timeout=10).status_code != 200:
        sys.exit(1)
