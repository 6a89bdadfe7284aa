"""A bit of everything that the project relies on in Kubernetes."""

from integration.cluster.images import TEST

_POD = f"""
      terminationGracePeriodSeconds: 0
      containers:
      - name: echo
        image: {TEST}
        imagePullPolicy: Never
        readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
        livenessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
"""

WORKLOADS = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: echo}}
spec:
  selector: {{matchLabels: {{app: echo}}}}
  template:
    metadata: {{labels: {{app: echo}}}}
    spec: {_POD}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: state}}
spec:
  serviceName: state
  selector: {{matchLabels: {{app: state}}}}
  template:
    metadata: {{labels: {{app: state}}}}
    spec: {_POD}
---
apiVersion: v1
kind: Service
metadata: {{name: state}}
spec: {{clusterIP: None, selector: {{app: state}}, ports: [{{name: http, port: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec:
  selector: {{app: echo}}
  ports:
  - {{name: http, port: 80, targetPort: 8080}}
  - {{name: echo, port: 7007, protocol: UDP}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: state}}
spec: {{minAvailable: 1, selector: {{matchLabels: {{app: state}}}}}}
---
apiVersion: batch/v1
kind: Job
metadata: {{name: job}}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: job
        image: {TEST}
        imagePullPolicy: Never
        command: [sh, -ec]
        args:
        - |
          until wget -qO- http://echo/ && wget -qO- http://state-0.state:8080/; do sleep 0.2; done
          python3 -c 'import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(5)
          s.sendto(b"ping", ("echo", 7007)); print("UDP says", s.recv(9))'
          namespace=$(cat /var/run/secrets/kubernetes.io/serviceaccount/namespace)
          nslookup -type=srv _http._tcp.state.$namespace.svc.cluster.local
"""

POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {name}}}
spec:
  failurePolicy: Fail
  matchConstraints:
    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}
    resourceRules: [{{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}}]
  validations: [{{expression: "object.data.user == request.userInfo.username", reason: Forbidden, message: "not you"}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {name}}}
spec: {{policyName: {name}, validationActions: [Deny]}}
"""
