# A job that calls a service of the mesh and ends: nomad job run examples/nomad/report.nomad.hcl
job "report" {
  type = "batch"

  group "report" {
    network {
      port "outbound" {}
      port "admin" {}
      port "inbound" {}
    }

    # `pillion run` is the sidecar and the program in one task: up before it, gone after it, with its exit code.
    task "report" {
      driver = "exec"

      config {
        command = "/usr/local/bin/pillion"
        args = [
          "run",
          "--service", "report",
          "--name", "report-${NOMAD_SHORT_ALLOC_ID}",
          "--outbound-port", "${NOMAD_PORT_outbound}",
          "--inbound-port", "${NOMAD_PORT_inbound}",
          "--admin-port", "${NOMAD_PORT_admin}",
          "--token-file", "${NOMAD_SECRETS_DIR}/join-token",
          "--",
          "curl", "-fsS", "--retry", "5", "--retry-all-errors", "http://reviews.default/reviews",
        ]
      }

      template {
        destination = "${NOMAD_TASK_DIR}/control-plane.env"
        env         = true
        data        = <<-EOF
          {{ range nomadService "pillion-control-plane" }}PILLION_CONTROL_PLANE={{ .Address }}:{{ .Port }}{{ end }}
        EOF
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/join-token"
        perms       = "600"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/report\" }}{{ .token }}{{ end }}"
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
