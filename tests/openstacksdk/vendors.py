"""Prints the vendor profiles of openstacksdk, as far as they concern login, endpoints and TLS,
in the form of `clouds-public.yaml`. `src/credentials/clouds_yaml/vendors.yaml` is the output."""

import json

from openstack.config import vendors

KEYS = (
    "profile",
    "auth",
    "auth_type",
    "region_name",
    "regions",
    "interface",
    "identity_api_version",
    "orchestration_endpoint_override",
    "orchestration_interface",
    "verify",
    "cacert",
    "status",
    "message",
)


def main():
    print("# The vendor profiles of openstacksdk, as far as they concern login, endpoints and")
    print("# TLS. Written by tests/openstacksdk/vendors.py.")
    print("public-clouds:")
    vendors.profiles()
    for name, profile in sorted(vendors._get_vendor_defaults().items()):
        print(f"  {name}:")
        for key in KEYS:
            value = profile.get(key)
            if key == "auth" and value:
                print("    auth:")
                for inner, text in value.items():
                    print(f"      {inner}: {json.dumps(text)}")
            elif key == "regions" and value:
                names = [v["name"] if isinstance(v, dict) else v for v in value]
                print(f"    regions: {json.dumps(names)}")
            elif value is not None:
                print(f"    {key}: {json.dumps(value)}")


if __name__ == "__main__":
    main()
