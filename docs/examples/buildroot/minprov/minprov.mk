################################################################################
#
# minprov
#
################################################################################

# The static form's tarball stands beside this file.
MINPROV_VERSION = 0.1.0
MINPROV_SOURCE = minprov-$(MINPROV_VERSION)-static-linux-$(ARCH).tar.gz
MINPROV_SITE = $(MINPROV_PKGDIR)
MINPROV_SITE_METHOD = file
MINPROV_LICENSE = Apache-2.0
MINPROV_LICENSE_FILES = licenses/minprov

define MINPROV_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/minprov $(TARGET_DIR)/usr/bin/minprov
endef

define MINPROV_INSTALL_INIT_SYSTEMD
	$(foreach unit,minprov.service minprov-custom-data.service minprov-ready.target,
		$(INSTALL) -D -m 0644 $(@D)/units/$(unit) $(TARGET_DIR)/usr/lib/systemd/system/$(unit)
	)
endef

define MINPROV_INSTALL_INIT_OPENRC
	$(INSTALL) -D -m 0755 $(@D)/units/minprov.openrc $(TARGET_DIR)/etc/init.d/minprov
endef

$(eval $(generic-package))
