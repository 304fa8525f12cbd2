"""What the chart fills in of others' kinds, as closed schemas.

Written by the kinds' own definitions:

- ServiceMonitor, PrometheusRule: github.com/prometheus-operator/prometheus-operator at 6adcebc,
  ``example/prometheus-operator-crd``;
- ScaledObject: github.com/kedacore/charts at 1444d00, ``keda/templates/crds``;
- Certificate: github.com/cert-manager/cert-manager at 2d0d7f7, ``deploy/crds``;
- HTTPRoute: github.com/kubernetes-sigs/gateway-api at 4564255, ``config/crd/standard``.
"""

from typing import Any

import jsonschema

from tests.support.schemas import closed

__all__ = ["KINDS", "hold_custom"]

TEXT = {"type": "string", "minLength": 1}
ANY_TEXT = {"type": "string"}
DURATION = {
    "type": "string",
    "pattern": r"^(0|(([0-9]+)y)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$",
}
COUNT = {"type": "integer", "minimum": 0}
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}


def many(items: dict[str, Any]) -> dict[str, Any]:
    """A list that is not empty."""
    return {"type": "array", "minItems": 1, "items": items}


SELECTED = closed([], matchLabels=LABELS)
RELABELING = closed(
    [],
    action=ANY_TEXT,
    sourceLabels=many(TEXT),
    targetLabel=TEXT,
    regex=ANY_TEXT,
    replacement=ANY_TEXT,
    separator=ANY_TEXT,
    modulus=COUNT,
)
SERVICE_MONITOR = closed(
    ["selector", "endpoints"],
    selector=SELECTED,
    endpoints=many(
        closed(
            [],
            port=TEXT,
            path=TEXT,
            interval=DURATION,
            scrapeTimeout=DURATION,
            authorization=closed([], type=TEXT, credentials=closed(["key"], name=TEXT, key=TEXT)),
            relabelings=many(RELABELING),
            metricRelabelings=many(RELABELING),
        )
    ),
)
RULE = closed(
    ["alert", "expr"],
    alert=TEXT,
    expr=TEXT,
    labels=LABELS,
    annotations=LABELS,
    **{"for": DURATION},
)
PROMETHEUS_RULE = closed([], groups=many(closed(["name"], name=TEXT, rules=many(RULE))))
POLICY = closed(
    ["type", "value", "periodSeconds"],
    type={"enum": ["Pods", "Percent"]},
    value={"type": "integer", "minimum": 1},
    periodSeconds={"type": "integer", "minimum": 1, "maximum": 1800},
)
SCALING = closed([], stabilizationWindowSeconds=COUNT, selectPolicy=TEXT, policies=many(POLICY))
SCALED_OBJECT = closed(
    ["scaleTargetRef", "triggers"],
    scaleTargetRef=closed(["name"], apiVersion=TEXT, kind=TEXT, name=TEXT),
    minReplicaCount=COUNT,
    maxReplicaCount=COUNT,
    pollingInterval=COUNT,
    cooldownPeriod=COUNT,
    fallback=closed(["failureThreshold", "replicas"], failureThreshold=COUNT, replicas=COUNT),
    advanced=closed(
        [],
        horizontalPodAutoscalerConfig=closed(
            [], behavior=closed([], scaleUp=SCALING, scaleDown=SCALING)
        ),
    ),
    triggers=many(
        closed(
            ["type", "metadata"],
            type={"const": "prometheus"},
            name=TEXT,
            metadata=closed(  # of the Prometheus scaler: every value is a text
                ["serverAddress", "query", "threshold"],
                serverAddress=TEXT,
                query=TEXT,
                threshold={"type": "string", "pattern": "^[0-9.e+]+$"},
                activationThreshold={"type": "string", "pattern": "^[0-9.e+]+$"},
            ),
            authenticationRef=closed(["name"], name=TEXT),
        )
    ),
)
CERTIFICATE = closed(
    ["issuerRef", "secretName"],
    secretName=TEXT,
    dnsNames=many(TEXT),
    issuerRef=closed(["name"], group=TEXT, kind=TEXT, name=TEXT),
)
HEADER_MATCH = closed(["name", "value"], type={"enum": ["Exact"]}, name=TEXT, value=TEXT)
MATCH = closed(
    [],
    path=closed([], type={"enum": ["Exact", "PathPrefix"]}, value={"type": "string"}),
    headers=many(HEADER_MATCH),
)
BACKEND = closed(
    ["name"],
    group=ANY_TEXT,
    kind=TEXT,
    name=TEXT,
    namespace=TEXT,
    port={"type": "integer"},
    weight={"type": "integer", "minimum": 0, "maximum": 1_000_000},
)
PARENT = closed(
    ["name"], group=TEXT, kind=TEXT, name=TEXT, namespace=TEXT, sectionName=TEXT, port=COUNT
)
HTTP_ROUTE = closed(
    [],
    parentRefs=many(PARENT),
    hostnames=many(TEXT),
    rules=many(closed([], matches=many(MATCH), backendRefs=many(BACKEND))),
)
KINDS = {
    "ServiceMonitor": ("monitoring.coreos.com/v1", SERVICE_MONITOR),
    "PrometheusRule": ("monitoring.coreos.com/v1", PROMETHEUS_RULE),
    "ScaledObject": ("keda.sh/v1alpha1", SCALED_OBJECT),
    "Certificate": ("cert-manager.io/v1", CERTIFICATE),
    "HTTPRoute": ("gateway.networking.k8s.io/v1", HTTP_ROUTE),
}


def hold_custom(manifest: dict[str, Any]) -> None:
    """Hold a manifest of one of ``KINDS``.

    Raises:
        jsonschema.ValidationError: it does not fit.
    """
    api, spec = KINDS[manifest["kind"]]
    whole = closed(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": api},
        kind={"const": manifest["kind"]},
        metadata=closed(["name"], name=TEXT, labels=LABELS, annotations=LABELS),
        spec=spec,
    )
    jsonschema.validate(manifest, whole, jsonschema.Draft7Validator)
