# A service of the shop, each instance with a sidecar: nomad job run examples/nomad/reviews.nomad.hcl
job "reviews" {
  type = "service"

  group "reviews" {
    count = 2

    # One instance after the other is replaced, when the one before it is well.
    update {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "5s"
      auto_revert      = true
    }

    network {
      port "http" {}
      port "inbound" {}
      port "outbound" {}
      port "admin" {}
      port "health" {}
    }

    service {
      name     = "reviews"
      provider = "nomad"
      port     = "inbound"
      check {
        type     = "http"
        port     = "health"
        path     = "/healthz/ready"
        interval = "5s"
        timeout  = "2s"
      }
    }

    # Starts before the program, and ends after it.
    task "sidecar" {
      driver = "exec"

      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      config {
        command = "/usr/local/bin/pillion-proxy"
        args = [
          "--service", "reviews",
          "--name", "reviews-${NOMAD_SHORT_ALLOC_ID}",
          "--label", "app=reviews",
          "--app", "http=${NOMAD_PORT_http}",
          "--address", "${NOMAD_IP_inbound}",
          "--inbound-port", "${NOMAD_PORT_inbound}",
          "--outbound-port", "${NOMAD_PORT_outbound}",
          "--admin-port", "${NOMAD_PORT_admin}",
          "--health-port", "${NOMAD_PORT_health}",
          "--token-file", "${NOMAD_SECRETS_DIR}/join-token",
          "--data-dir", "${NOMAD_ALLOC_DIR}/data/sidecar",
        ]
      }

      # Where the control plane is now.
      template {
        destination = "${NOMAD_TASK_DIR}/control-plane.env"
        env         = true
        data        = <<-EOF
          {{ range nomadService "pillion-control-plane" }}PILLION_CONTROL_PLANE={{ .Address }}:{{ .Port }}{{ end }}
        EOF
      }

      # The right to join the mesh: nomad var put nomad/jobs/reviews token=...
      template {
        destination = "${NOMAD_SECRETS_DIR}/join-token"
        perms       = "600"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/reviews\" }}{{ .token }}{{ end }}"
      }

      kill_timeout = "15s"

      resources {
        cpu    = 100
        memory = 64
      }
    }

    # The program waits for this one, and this one for a warm sidecar.
    task "warm" {
      driver = "exec"

      lifecycle {
        hook = "prestart"
      }

      config {
        command = "/bin/sh"
        args    = ["-c", "until curl -fsS http://127.0.0.1:${NOMAD_PORT_admin}/ready; do sleep 1; done"]
      }

      resources {
        cpu    = 20
        memory = 32
      }
    }

    task "reviews" {
      driver = "exec"

      config {
        command = "/usr/local/bin/pillion-shop"
        args    = ["reviews", "--port", "${NOMAD_PORT_http}", "--instance", "reviews-${NOMAD_SHORT_ALLOC_ID}"]
      }

      env {
        MESH_PROXY = "http://127.0.0.1:${NOMAD_PORT_outbound}"
      }

      kill_timeout = "15s"

      resources {
        cpu    = 100
        memory = 64
      }
    }

    # The sidecar's key does not outlive it.
    task "tidy" {
      driver = "exec"

      lifecycle {
        hook = "poststop"
      }

      config {
        command = "/bin/rm"
        args    = ["-rf", "${NOMAD_ALLOC_DIR}/data/sidecar"]
      }

      resources {
        cpu    = 20
        memory = 32
      }
    }
  }
}
