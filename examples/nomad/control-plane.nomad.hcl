# The control plane of a mesh: nomad job run examples/nomad/control-plane.nomad.hcl
job "pillion" {
  type = "service"

  group "control-plane" {
    count = 1

    # The root key is here. It goes with the job to another machine as long as the old one can be reached; a host volume
    # is better, where there is one.
    ephemeral_disk {
      sticky  = true
      migrate = true
      size    = 300
    }

    network {
      # Sidecars come here. The other two are loopback, for people and scripts.
      port "xds" { static = 15012 }
      port "plain" {}
      port "admin" {}
    }

    service {
      name     = "pillion-control-plane"
      provider = "nomad"
      port     = "xds"
      check {
        type     = "tcp"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "control-plane" {
      driver = "exec"

      config {
        command = "/usr/local/bin/pillion"
        args = [
          "control-plane",
          "--config", "${NOMAD_TASK_DIR}/mesh",
          "--data-dir", "${NOMAD_ALLOC_DIR}/data/pillion",
          "--address", "${NOMAD_IP_xds}",
          "--xds-tls-port", "${NOMAD_PORT_xds}",
          "--xds-port", "${NOMAD_PORT_plain}",
          "--admin-port", "${NOMAD_PORT_admin}",
        ]
      }

      # The mesh; it is watched, so an edited template needs no restart.
      template {
        destination = "${NOMAD_TASK_DIR}/mesh/mesh.yaml"
        change_mode = "noop"
        data        = <<-EOF
          apiVersion: pillion.io/v1alpha1
          kind: Mesh
          metadata: {name: shop}
          spec: {trustDomain: shop.local, mtls: Strict, outbound: RegistryOnly}
          ---
          apiVersion: v1
          kind: Service
          metadata: {name: reviews}
          spec:
            selector: {app: reviews}
            ports: [{name: http, port: 80, targetPort: http, appProtocol: http}]
        EOF
      }

      kill_timeout = "15s"

      resources {
        cpu    = 200
        memory = 128
      }
    }
  }
}
