"""Prints what openstacksdk reads from each cloud of the given files.

A line of the output is `file<TAB>cloud<TAB>reading`, in the form of the column `reading` of
`tests/fixtures/clouds/readings.tsv`; an exception is `error TYPE`. The first file is the one
of the search path.
"""

import os
import sys
import warnings

import openstack.config

HOME = "/home/me"


def named(auth, what):
    identifier = auth.get(f"{what}_id")
    if identifier:
        return f"id:{identifier}"
    name = auth.get("username" if what == "user" else "project_name")
    if not name:
        return "-"
    domain = auth.get(f"{what}_domain_id")
    domain = f"id:{domain}" if domain else auth.get(f"{what}_domain_name")
    return f"{name}@{domain or 'id:default'}"


def login(region):
    auth = region.config["auth"]
    kind = region.config["auth_type"]
    if kind == "v3applicationcredential":
        identifier = auth.get("application_credential_id")
        if identifier:
            return f"credential id:{identifier} {auth['application_credential_secret']} -"
        name = auth["application_credential_name"]
        user = named(auth, "user")
        return f"credential {name} of {user} {auth['application_credential_secret']} -"
    if kind in ("token", "v3token"):
        return f"token {auth['token']} {named(auth, 'project')}"
    return f"{named(auth, 'user')} {auth.get('password')} {named(auth, 'project')}"


def reading(region):
    interface = region.get_interface("orchestration")
    interface = interface.split(",") if isinstance(interface, str) else interface
    # keystoneauth accepts both.
    interface = [name.removesuffix("URL") for name in interface]
    verify, _ = region.get_requests_verify_args()
    return " ".join(
        (
            login(region),
            region.config["auth"]["auth_url"].rstrip("/"),
            region.get_region_name("orchestration") or "-",
            ",".join(interface),
            region.get_endpoint("orchestration") or "-",
            verify if isinstance(verify, str) else str(bool(verify)).lower(),
        )
    )


def main():
    warnings.simplefilter("ignore")
    os.environ["HOME"] = HOME
    for number, path in enumerate(sys.argv[1:]):
        if number:
            os.environ["OS_CLIENT_CONFIG_FILE"] = path
            os.environ["OS_CLIENT_SECURE_FILE"] = os.devnull
        config = openstack.config.OpenStackConfig()
        assert config.config_filename == path, (config.config_filename, path)
        for cloud in config.get_cloud_names():
            try:
                text = reading(config.get_one(cloud))
            except Exception as error:  # pylint: disable=broad-except
                text = f"error {type(error).__name__}"
            print(os.path.basename(path), cloud, text, sep="\t")


if __name__ == "__main__":
    main()
